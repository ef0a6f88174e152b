{{ config(materialized='view') }}

with of_projects as (
    select
        id as release_id,
        version,
        coalesce(date_released, date_created) as released_at,
        {{ project_slugs('projects') }} as project
    from {{ source('analytics', 'releases') }}
)

select
    r.release_id || ':' || r.project as release_key,
    r.release_id,
    r.version,
    r.project,
    p.id as project_id,
    r.released_at,
    lead(r.released_at) over (
        partition by r.project order by r.released_at, r.release_id
    ) as next_released_at
from of_projects r
left join {{ source('analytics', 'projects') }} p on p.slug = r.project
where r.released_at is not null
