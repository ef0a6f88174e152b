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
    count(distinct user_id) as users,
    count(distinct issue_id) as issues,
    max(read_at) as read_until
from {{ ref('stg_events') }}
{% if is_incremental() %}
-- Loads that overlap may come in another order than they were read in: hence the day.
where day in (
    select day from {{ ref('stg_events') }}
    where read_at > (
        select coalesce(max(read_until), timestamptz '1970-01-01') - interval '1 day'
        from {{ this }}
    )
)
{% endif %}
group by day, project_id, project, level, environment, release_version
