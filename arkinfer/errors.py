"""Every error that a user can meet, each with its own name.

An error says what was found, what was expected and what to do, in one line.
The command line prints that line and exits with code 1; Python code catches
:class:`ArkInferError` or one of its named children.
"""

from __future__ import annotations


class ArkInferError(Exception):
    """Base of all errors raised on purpose.

    Args:
        found: what is wrong, as a clause without a full stop.
        expected: what would have been right; may be empty.
        remedy: what the user can do; may be empty.
    """

    def __init__(self, found: str, expected: str = "", remedy: str = "") -> None:
        self.found = found
        self.expected = expected
        self.remedy = remedy
        parts = [found]
        if expected:
            parts.append(f"expected {expected}")
        if remedy:
            parts.append(remedy)
        super().__init__(" ".join("; ".join(parts).split()))

    @property
    def name(self) -> str:
        """The error's name as users see it: the class name without ``Error``."""
        return type(self).__name__.removesuffix("Error")


class InputNotFoundError(ArkInferError):
    """A path that does not exist."""


class CheckpointFormatError(ArkInferError):
    """A file or folder that no converter can read."""


class DamagedCheckpointError(ArkInferError):
    """A checkpoint file that contradicts itself: truncated, bad header, bad offset."""


class CheckpointTensorsError(ArkInferError):
    """Missing, surplus or misshapen tensors, all listed at once."""


class ConfigError(ArkInferError):
    """Missing or contradictory model configuration keys, all listed at once."""


class UnknownModelTypeError(ArkInferError):
    """A ``model_type`` that no file in ``arkinfer/models`` describes."""


class TokenizerError(ArkInferError):
    """A tokenizer or chat template that is missing or cannot be used."""


class UnsupportedQuantizationError(ArkInferError):
    """A quantization scheme that cannot be read, or that a backend cannot run."""


class SparseAttentionError(ArkInferError):
    """Sparse attention asked of a model that was not trained for it."""


class LoweringError(ArkInferError):
    """A graph that a backend cannot turn into a plan."""


class LinkerError(ArkInferError):
    """No C compiler links kernels for the target, or the one that is there fails."""


class KernelBuildError(ArkInferError):
    """Device code that its compiler refuses; carries the compiler's log."""


class UnknownBackendError(ArkInferError):
    """A backend or target name that nothing provides."""


class UnknownDeviceError(UnknownBackendError):
    """A device that no profile describes, or a processor that it does not have."""


class DeviceProfileError(ArkInferError):
    """A device profile that breaks its rules; names the place in the file."""


class MissingExtraError(ArkInferError):
    """A feature that needs an optional dependency; names the command to install it."""


class DamagedBundleError(ArkInferError):
    """A bundle whose bytes do not match its manifest."""


class InvalidBundleError(ArkInferError):
    """A bundle whose manifest or plan breaks the format's rules."""


class BundleVersionError(ArkInferError):
    """A bundle written for a different format version or runtime ABI."""


class OutputExistsError(ArkInferError):
    """An output path that already holds something that is not a bundle."""


class StorageError(ArkInferError):
    """A write that failed: full disk, no permission."""


class MemoryBudgetError(ArkInferError):
    """A context that does not fit; names the largest context that does."""


class ContextOverflowError(ArkInferError):
    """More tokens than the session's context holds."""


class PromptError(ArkInferError):
    """A prompt that cannot be used: empty, or not valid UTF-8."""


class InvalidOptionError(ArkInferError):
    """An option value outside its range, or a combination that is refused."""


class VerificationError(ArkInferError):
    """A bundle whose stages differ from the reference by more than the tolerance."""


class NativeLibraryError(ArkInferError):
    """The native library is missing, or has another ABI version than this package."""


class DeviceError(ArkInferError):
    """A device that is missing, too small, lost or out of memory, or whose driver refuses code."""


class CancelledError(ArkInferError):
    """The operation was cancelled by its caller."""
