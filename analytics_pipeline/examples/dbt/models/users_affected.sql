select
    cast(day as varchar) || ':' || project_id as users_affected_key,
    day,
    project_id,
    project,
    count(distinct user_key) as users,
    count(*) as events,
    count(*) - count(user_key) as events_without_user
from {{ ref('stg_events') }}
group by day, project_id, project
