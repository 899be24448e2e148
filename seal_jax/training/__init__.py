"""The inner loop and supervised fine-tuning.

`inner` defines how one adapter is trained; `plan` lays many trainings into steps and
`packed` runs them at once. `imitate` and `finetune` train the policy, on rows of
`sft_rows`. `settings`, `plan` and the layouts need no jax. Imports from `models` and
what is below.
"""
