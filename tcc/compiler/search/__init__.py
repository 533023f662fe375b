# SPDX-License-Identifier: Apache-2.0
"""The search driver: enumerate, drop the illegal, rank by cost, compile the best, check them against the oracle, time
them, record. A candidate under test is a one-problem engine run by the runtime in a worker process."""
