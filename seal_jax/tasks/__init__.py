"""What self-edits are about, and what is asked afterwards: text in, text out.

`base` says what a round expects of a task; `knowledge` (passages) and `few_shot` (grid
tasks, with `arc`) are the two there are. No jax: a task describes its trainings as
`training.plan.Job`s. Imports from `training`'s settings and plans, and `runtime`.
"""
