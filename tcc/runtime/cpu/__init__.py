# SPDX-License-Identifier: Apache-2.0
"""The CPU executor: native objects, a team of threads, memory."""
