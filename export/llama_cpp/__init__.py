"""A model folder as a GGUF file for llama.cpp and Ollama: llama.cpp converts, quantises and runs, this room checks."""
