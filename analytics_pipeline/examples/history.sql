-- Queries on issue_history for DuckDB and PostgreSQL. Days are in the session's time zone.
-- The dbt models issues_open_daily and issue_resolution answer the first two as well.
-- "Reopened" means that an issue became unresolved after it had another status. Issues that are
-- gone from the server are not open: their last state has ended.

-- How many issues were open at the end of each day?
select cast(d.day as date) as day, count(h.id) as open_issues
from generate_series(
    (select date_trunc('day', min(valid_from)) from analytics.issue_history),
    current_timestamp,
    interval '1 day'
) as d(day)
left join analytics.issue_history h
    on h.status = 'unresolved'
    and h.valid_from < d.day + interval '1 day'
    and (h.valid_to is null or h.valid_to >= d.day + interval '1 day')
group by d.day
order by d.day;

-- In each project, how many days does it take to resolve an issue, counted from its first event
-- or from when it was reopened? Issues that had been resolved before the history of their project
-- began do not count, here and in the last query. Newer issues count, even if they were resolved
-- before they were first loaded.
with changes as (
    select *, lag(status) over (partition by id order by valid_from) as before,
        min(valid_from) over (partition by project_id) as began
    from analytics.issue_history
), begun as (
    select *, max(
        case when status = 'unresolved' and before <> 'unresolved' then valid_from end
    ) over (partition by id order by valid_from) as reopened
    from changes
)
select p.slug, count(*) as resolved, percentile_cont(0.5) within group (
    order by (extract(epoch from b.valid_from)
        - extract(epoch from coalesce(b.reopened, i.first_seen))) / 86400
) as median_days
from begun b
join analytics.issues i on i.id = b.id
join analytics.projects p on p.id = b.project_id
where b.status = 'resolved'
    and (b.before <> 'resolved' or b.before is null and i.first_seen >= b.began)
group by p.slug
order by p.slug;

-- After which releases did resolved issues become unresolved again (regress)? Each regression
-- counts for the release of its project that was the newest at that time.
with changes as (
    select *, lag(status) over (partition by id order by valid_from) as before
    from analytics.issue_history
)
select newest.version, count(*) as regressed
from changes c
join analytics.projects p on p.id = c.project_id
cross join lateral (
    select r.version
    from analytics.releases r
    where coalesce(r.date_released, r.date_created) <= c.valid_from and position(
        '"slug":"' || p.slug || '"' in replace(cast(r.projects as varchar), ' ', '')) > 0
    order by coalesce(r.date_released, r.date_created) desc
    limit 1
) newest
where c.status = 'unresolved' and c.before = 'resolved'
group by newest.version
order by regressed desc, newest.version;

-- Who resolved how many issues, by the assignee at that time?
with changes as (
    select *, lag(status) over (partition by id order by valid_from) as before,
        min(valid_from) over (partition by project_id) as began
    from analytics.issue_history
)
select c.assigned_to, count(*) as resolved
from changes c
join analytics.issues i on i.id = c.id
where c.status = 'resolved'
    and (c.before <> 'resolved' or c.before is null and i.first_seen >= c.began)
group by c.assigned_to
order by resolved desc, c.assigned_to;
