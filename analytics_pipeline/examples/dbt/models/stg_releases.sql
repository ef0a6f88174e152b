{{ config(materialized='view') }}

with of_projects as (
    select
        id as release_id,
        version,
        coalesce(date_released, date_created) as released_at,
        {{ items('projects') }} as project
    from {{ source('analytics', 'releases') }}
),

released as (
    select
        r.release_id,
        r.version,
        p.id as project_id,
        coalesce(p.slug, r.project ->> 'slug') as project,
        r.released_at
    from of_projects r
    -- Join by id, because slugs change. GlitchTip's releases have no project ids.
    left join {{ source('analytics', 'projects') }} p on case
        when (r.project ->> 'id') is null then p.slug = (r.project ->> 'slug')
        else p.id = (r.project ->> 'id')
    end
    where r.released_at <= current_timestamp
)

select
    release_id || ':' || project as release_key,
    release_id,
    version,
    project,
    project_id,
    released_at,
    lead(released_at) over (
        partition by coalesce(project_id, project) order by released_at, release_id
    ) as next_released_at
from released
