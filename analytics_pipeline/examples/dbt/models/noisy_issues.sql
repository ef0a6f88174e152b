{% set issues = source('analytics', 'issues') %}

with recent as (
    select issue_id, user_key
    from {{ ref('stg_events') }}
    where happened_at > (
        select max(happened_at) - interval '7 days' from {{ ref('stg_events') }}
    )
),

by_issue as (
    select issue_id, count(*) as events_7d, count(distinct user_key) as users_7d
    from recent
    group by issue_id
)

select
    i.id as issue_id,
    i.short_id,
    i.title,
    i.project_id,
    i.level,
    i.last_seen,
    i.count as events,
    b.events_7d,
    b.users_7d,
    cast(b.events_7d as double precision) / (select count(*) from recent) as share_7d,
    row_number() over (order by b.events_7d desc, i.id) as rank
from {{ issues }} i
join by_issue b on b.issue_id = i.id
where i.status = 'unresolved'
{% if has_column(issues, 'gone_at') %}and i.gone_at is null{% endif %}
