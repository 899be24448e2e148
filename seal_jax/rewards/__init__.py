"""What an answer or an edit is worth: strings in, a number out.

Local graders, an LLM judge, rubrics, majority votes. No jax. Imports from
`tasks`, `analysis` and `runtime`.
"""
