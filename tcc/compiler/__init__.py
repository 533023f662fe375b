# SPDX-License-Identifier: Apache-2.0
"""The compiler: frontend, phases, search, the engine writer and the command lines."""
