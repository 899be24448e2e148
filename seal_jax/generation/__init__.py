"""Text out of a model: prefill and decode with many adapters, and the policy.

`sample` works on arrays, `generate` queues requests, `policies` takes and gives
strings. Imports from `models` and what is below, and the door of `seal_kernels`.
"""
