# SPDX-License-Identifier: Apache-2.0
"""Kernel templates for CPUs, one idea a file; every module here is imported and registers its templates."""
