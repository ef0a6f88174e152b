{# The UTC day of a time. #}
{% macro utc_day(time) %}cast({{ time }} at time zone 'UTC' as date){% endmacro %}

{# Days from one time to another, not below 0. #}
{% macro days_between(start, end) %}
greatest(
    (extract(epoch from {{ end }}) - extract(epoch from {{ start }})) / 86400.0, 0
)
{% endmacro %}

{# Whether a table has a column: datasets of earlier versions lack some. #}
{% macro has_column(relation, name) %}
{% set columns = adapter.get_columns_in_relation(relation) %}
{{ return(name in columns | map(attribute='name') | list) }}
{% endmacro %}

{# The first non-empty value of these names in a JSON object; NULL if it is masked. #}
{% macro first_value(object, names) %}
nullif(coalesce(
    {%- for name in names %}nullif({{ object }} ->> '{{ name }}', ''){{ ', ' if not loop.last }}
    {%- endfor %}), '***')
{% endmacro %}

{# One row for each item of a JSON list. #}
{% macro items(list) %}
{{ adapter.dispatch('items', 'analytics_pipeline')(list) }}
{% endmacro %}

{% macro default__items(list) %}
jsonb_path_query(cast({{ list }} as jsonb), '$[*]')
{% endmacro %}

{% macro duckdb__items(list) %}
unnest(json_extract({{ list }}, '$[*]'))
{% endmacro %}
