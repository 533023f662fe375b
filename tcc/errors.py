# SPDX-License-Identifier: Apache-2.0
"""The errors tcc raises on purpose, and the exit status each becomes on a command line.

Every message is one sentence (or one report of several) that names the node or file, the value, and the way out.
"""


class TccError(Exception):
    """Base of every error a user can cause or repair; `exit_code` is what a command returns for it."""

    exit_code = 1


class InputError(TccError):
    """The input is not usable: a bad model, shape, option, pass, target or IR text."""

    exit_code = 2


class FailureError(TccError):
    """The input was usable and the work failed: no device, out of memory, a damaged or foreign engine."""

    exit_code = 1
