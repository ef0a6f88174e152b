{{ config(materialized='view') }}

{% set table = source('analytics', 'events') %}

with events as (
    select
        *,
        coalesce(date_created, date_received) as happened_at,
        {% if has_column(table, 'user') %}
        {{ first_value('"user"', ['id', 'email', 'ip_address', 'username']) }}
        {% else %}nullif(user_id, '***'){% endif %} as user_key
    from {{ table }}
)

select
    e.project_id || ':' || e.id as event_key,
    e.id as event_id,
    e.project_id,
    coalesce(p.slug, e.project_id) as project,
    e.group_id as issue_id,
    e.happened_at,
    {{ utc_day('e.happened_at') }} as day,
    coalesce(e.level, i.level, 'unknown') as level,
    coalesce(e.environment, 'unknown') as environment,
    coalesce(e.release_version, 'unknown') as release_version,
    e.user_id,
    e.user_key,
    e.handled,
    e.read_at
from events e
left join {{ source('analytics', 'issues') }} i on i.id = e.group_id
left join {{ source('analytics', 'projects') }} p on p.id = e.project_id
-- Without this, a client whose clock is ahead would determine the newest event.
where e.happened_at <= current_timestamp
