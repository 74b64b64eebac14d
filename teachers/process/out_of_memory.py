"""Which exceptions say that there was no memory: of Python, NumPy, torch on a CPU and on a GPU, and what computes outside them."""

WORDS = ("out of memory", "can't allocate memory", "failed to allocate", "bad_alloc", "alloc_failed")
"""In what torch's CPU allocator, cuBLAS, cuDNN, onnxruntime and C++ say, whose exceptions have no kind of their own for it."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether `error`, or what it was raised from, is that. Knows it by its name where that is torch's, for this imports no torch."""
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        if any(word in str(error).lower() for word in WORDS):
            return True
        error = error.__cause__
    return False
