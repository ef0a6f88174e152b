{{ config(materialized='view') }}

with events as (
    select *, coalesce(date_created, date_received) as happened_at
    from {{ source('analytics', 'events') }}
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
    e.handled,
    e.read_at
from events e
left join {{ source('analytics', 'issues') }} i on i.id = e.group_id
left join {{ source('analytics', 'projects') }} p on p.id = e.project_id
where e.happened_at is not null
