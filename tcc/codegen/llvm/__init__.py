# SPDX-License-Identifier: Apache-2.0
"""The CPU target: LLVM templates, emitters, the segment function and the object compiler."""
