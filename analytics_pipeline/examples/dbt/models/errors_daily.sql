{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key='day'
) }}

select
    md5(concat_ws(
        '|', cast(day as varchar), project_id, level, environment, release_version
    )) as errors_daily_key,
    day,
    project_id,
    project,
    level,
    environment,
    release_version,
    count(*) as events,
    count(distinct user_key) as users,
    count(distinct issue_id) as issues,
    max(read_at) as read_until
from {{ ref('stg_events') }}
{% if is_incremental() %}
-- One day of overlap: concurrent loads may be written in another order than they were read.
where day in (
    select day from {{ ref('stg_events') }}
    where read_at > (
        select coalesce(max(read_until), timestamptz '1970-01-01') - interval '1 day'
        from {{ this }}
    )
)
-- All days of projects whose slug has changed.
or day in (
    select counted.day
    from {{ this }} counted
    join {{ source('analytics', 'projects') }} p on p.id = counted.project_id
    where p.slug <> counted.project
)
{% endif %}
group by day, project_id, project, level, environment, release_version
