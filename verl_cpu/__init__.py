"""A CPU platform for verl, so that its own trainer runs unchanged on a machine without a GPU.

Loaded through `VERL_USE_EXTERNAL_MODULES=verl_cpu.platform`, chosen by `VERL_PLATFORM=cpu`. Written against
verl 0.9.1 and vLLM 0.27.1; each patch says what it changes, why, and when it can go.
"""
