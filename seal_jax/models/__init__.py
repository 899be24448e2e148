"""One decoder for Qwen2, Qwen3 and Llama 3, its adapters, and their files.

The Flax module, functional LoRA, the KV cache, chunked cross-entropy; Hugging Face and
PEFT formats; where parameters lie on a mesh. Imports from `runtime` and `analysis`.
"""
