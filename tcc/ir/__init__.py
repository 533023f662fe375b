# SPDX-License-Identifier: Apache-2.0
"""The intermediate representation: SSA core, types, text form, and the dialects graph, kernel, arith and math."""
