{# The UTC day of a time. #}
{% macro utc_day(time) %}cast({{ time }} at time zone 'UTC' as date){% endmacro %}

{# Days from one time to another, not below 0. #}
{% macro days_between(start, end) %}
greatest(
    (extract(epoch from {{ end }}) - extract(epoch from {{ start }})) / 86400.0, 0
)
{% endmacro %}

{# One row for each slug of a JSON list of projects. #}
{% macro project_slugs(projects) %}
{{ adapter.dispatch('project_slugs', 'analytics_pipeline')(projects) }}
{% endmacro %}

{% macro default__project_slugs(projects) %}
jsonb_path_query(cast({{ projects }} as jsonb), '$[*].slug') #>> '{}'
{% endmacro %}

{% macro duckdb__project_slugs(projects) %}
unnest(json_extract_string({{ projects }}, '$[*].slug'))
{% endmacro %}
