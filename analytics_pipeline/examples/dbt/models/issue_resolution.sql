{{ config(enabled=var('issue_history')) }}

select
    issue_id || ':' || cast(valid_from as varchar) as issue_resolution_key,
    issue_id,
    project_id,
    project,
    opened_at,
    valid_from as resolved_at,
    {{ days_between('opened_at', 'valid_from') }} as days_to_resolve,
    coalesce(opened_at <> first_seen, false) as was_reopened,
    release as resolved_in
from {{ ref('stg_issue_changes') }}
where is_resolved
