{{ config(materialized='view', enabled=var('issue_history')) }}

-- Same definitions as in the pipeline's report: an issue is new if it was first seen after the
-- history of its project began.
with states as (
    select
        h.id as issue_id,
        h.project_id,
        coalesce(p.slug, h.project_id) as project,
        h.status,
        h.release,
        h.valid_from,
        i.first_seen,
        lag(h.status) over (partition by h.id order by h.valid_from) as status_before,
        row_number() over (partition by h.id order by h.valid_from) = 1
            and i.first_seen
            >= min(h.valid_from) over (partition by h.project_id) as is_new
    from {{ source('analytics', 'issue_history') }} h
    left join {{ source('analytics', 'issues') }} i on i.id = h.id
    left join {{ source('analytics', 'projects') }} p on p.id = h.project_id
),

changes as (
    select
        *,
        coalesce(status = 'unresolved' and status_before <> 'unresolved', false)
            as is_reopened,
        coalesce(
            status = 'resolved' and (status_before <> 'resolved' or is_new), false
        ) as is_resolved
    from states
)

select
    *,
    coalesce(
        max(case when is_reopened then valid_from end) over (
            partition by issue_id order by valid_from
        ),
        first_seen
    ) as opened_at
from changes
