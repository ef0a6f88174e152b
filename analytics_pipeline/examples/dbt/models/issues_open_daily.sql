{{ config(enabled=var('issue_history')) }}

with histories as (
    select
        h.project_id,
        coalesce(p.slug, h.project_id) as project,
        cast({{ utc_day('min(h.valid_from)') }} as timestamp) as first_day
    from {{ source('analytics', 'issue_history') }} h
    left join {{ source('analytics', 'projects') }} p on p.id = h.project_id
    group by h.project_id, coalesce(p.slug, h.project_id)
),

days as (
    select
        h.project_id,
        h.project,
        cast(d.day as date) as day,
        (d.day + interval '1 day') at time zone 'UTC' as day_end
    from generate_series(
        (select min(first_day) from histories),
        cast({{ utc_day('current_timestamp') }} as timestamp),
        interval '1 day'
    ) as d(day)
    join histories h on d.day >= h.first_day
)

select
    cast(d.day as varchar) || ':' || d.project_id as issues_open_daily_key,
    d.day,
    d.project_id,
    d.project,
    count(h.id) as open_issues
from days d
left join {{ source('analytics', 'issue_history') }} h
    on h.project_id = d.project_id
    and h.status = 'unresolved'
    and h.valid_from < d.day_end
    and (h.valid_to is null or h.valid_to >= d.day_end)
group by d.day, d.project_id, d.project
