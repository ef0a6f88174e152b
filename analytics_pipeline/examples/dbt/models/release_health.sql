with new_issues as (
    select r.release_key, count(*) as number
    from {{ ref('stg_releases') }} r
    join {{ source('analytics', 'issues') }} i
        on i.project_id = r.project_id
        and i.first_seen >= r.released_at
        and (r.next_released_at is null or i.first_seen < r.next_released_at)
    group by r.release_key
),

{% if var('issue_history') %}
reopened as (
    select r.release_key, count(*) as number
    from {{ ref('stg_releases') }} r
    join {{ ref('stg_issue_changes') }} c
        on c.project_id = r.project_id
        and c.is_reopened and c.status_before = 'resolved'
        and c.valid_from >= r.released_at
        and (r.next_released_at is null or c.valid_from < r.next_released_at)
    group by r.release_key
),
{% endif %}

events as (
    select
        r.release_key,
        count(case when e.happened_at < r.released_at + interval '24 hours' then 1 end)
            as events_24h,
        count(distinct case
            when e.happened_at < r.released_at + interval '24 hours' then e.user_key
        end) as users_24h,
        count(*) as events_7d,
        count(distinct e.user_key) as users_7d
    from {{ ref('stg_releases') }} r
    join {{ ref('stg_events') }} e
        on e.project_id = r.project_id
        and e.release_version = r.version
        and e.happened_at >= r.released_at
        and e.happened_at < r.released_at + interval '7 days'
    group by r.release_key
)

select
    r.release_key,
    r.release_id,
    r.version,
    r.project_id,
    r.project,
    r.released_at,
    r.next_released_at,
    coalesce(n.number, 0) as new_issues,
    {% if var('issue_history') %}coalesce(o.number, 0){% else %}cast(null as bigint){% endif %}
        as regressed_issues,
    coalesce(e.events_24h, 0) as events_24h,
    coalesce(e.users_24h, 0) as users_24h,
    coalesce(e.events_7d, 0) as events_7d,
    coalesce(e.users_7d, 0) as users_7d
from {{ ref('stg_releases') }} r
left join new_issues n on n.release_key = r.release_key
{% if var('issue_history') %}
left join reopened o on o.release_key = r.release_key
{% endif %}
left join events e on e.release_key = r.release_key
