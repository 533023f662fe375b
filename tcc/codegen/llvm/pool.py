# SPDX-License-Identifier: Apache-2.0
"""The thread team of CPU engines in LLVM IR: worker loop, barrier, one parallel run.

The runtime owns one team a process, a block of memory laid out as below and a thread for each worker but the caller,
which is worker 0. Every engine's native object has these functions, so a team runs segments of any engine whose ABI
number is the same.

Layout of a team, in bytes; lines that different threads write are 128 bytes apart (two cache lines, which prefetchers
fetch together):

| offset | type | meaning |
|---|---|---|
| 0 | i32 | sequence number of the current job, the futex that idle workers sleep on; never 0 |
| 4 | i32 | workers of the current job, or -1: leave |
| 8 | i64 | address of the segment |
| 16 | i64 | address of its table |
| 128 | i32 | idle workers asleep |
| 132 | i32 | how many pauses a waiter spins before it sleeps |
| 256 | i32 | workers that have arrived at the barrier |
| 384 | i32 | phase of the barrier, the futex that its waiters sleep on |
| 512 | i32 | waiters asleep in the barrier |
| 516 | i32 | waits in the barrier, one after another, that spinning did not end |

The first 8 bytes are read and written as one word. A worker outside the current job therefore learns so without
touching the job's other fields, which may already be changing for the next one; a worker inside it is waited for in
the last barrier of the job.

A waiter announces itself in a count of sleepers and only then lets the kernel compare the futex; a waker changes the
futex and only then reads the count. Both sides are sequentially consistent, so at least one sees the other and no
wake-up is lost.

Spinning helps while the others run. Where other processes keep cores busy, two workers come to share one, and each
spins away the time that the other needs. Nothing tells a waiter so but that spinning does not help: after four such
waits it spins for a 64th of the time only, but for every 64th wait in the barrier, until spinning ends one again. Idle
workers go by the same count.
"""

from __future__ import annotations

from tcc.errors import InputError

ABI = 1
TEAM_BYTES = 640

_FUTEX_CALL = {"x86_64": 202, "aarch64": 98}
_PAUSE = {
    "x86_64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    "aarch64": ("declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)"),
}

_TEXT = """\
declare i64 @syscall(i64, ...)
declare i32 @clock_gettime(i32, ptr)
@PAUSE_DECLARATION@

define i64 @tcc_abi() {
  ret i64 @ABI@
}

; Spins `count` times as a waiter does: the runtime times it to turn microseconds into pauses.
define void @tcc_spin(i64 %count) {
entry:
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %head ]
  @PAUSE@
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %count
  br i1 %more, label %head, label %done
done:
  ret void
}

; Returns once the i32 at %word differs from %old: after some spinning, asleep. Says whether it slept.
define internal i1 @tcc_wait(ptr %word, i32 %old, ptr %sleepers, i32 %spin) noinline {
entry:
  br label %look
look:
  %i = phi i32 [ 0, %entry ], [ %next, %again ]
  %now = load atomic i32, ptr %word acquire, align 4
  %same = icmp eq i32 %now, %old
  br i1 %same, label %spinning, label %done
spinning:
  %more = icmp ult i32 %i, %spin
  br i1 %more, label %again, label %tired
again:
  @PAUSE@
  %next = add i32 %i, 1
  br label %look
tired:
  %before = atomicrmw add ptr %sleepers, i32 1 seq_cst
  br label %asleep
asleep:
  %then = load atomic i32, ptr %word seq_cst, align 4
  %still = icmp eq i32 %then, %old
  br i1 %still, label %sleep, label %awake
sleep:
  %address = ptrtoint ptr %word to i64
  %expected = zext i32 %old to i64
  %ignored = call i64 (i64, ...) @syscall(i64 @FUTEX@, i64 %address, i64 128, i64 %expected, i64 0, i64 0, i64 0)
  br label %asleep
awake:
  %after = atomicrmw sub ptr %sleepers, i32 1 seq_cst
  br label %done
done:
  %slept = phi i1 [ false, %look ], [ true, %awake ]
  ret i1 %slept
}

; Wakes whoever sleeps on %word; the caller has just changed it.
define internal void @tcc_wake(ptr %word, ptr %sleepers) {
entry:
  %count = load atomic i32, ptr %sleepers seq_cst, align 4
  %any = icmp ne i32 %count, 0
  br i1 %any, label %wake, label %done
wake:
  %address = ptrtoint ptr %word to i64
  %ignored = call i64 (i64, ...) @syscall(i64 @FUTEX@, i64 %address, i64 129, i64 2147483647, i64 0, i64 0, i64 0)
  br label %done
done:
  ret void
}

define internal void @tcc_barrier(ptr %team, i64 %workers) noinline {
entry:
  %alone = icmp eq i64 %workers, 1
  br i1 %alone, label %done, label %meet
meet:
  %arrived = getelementptr i8, ptr %team, i64 256
  %word = getelementptr i8, ptr %team, i64 384
  %sleepers = getelementptr i8, ptr %team, i64 512
  %phase = load atomic i32, ptr %word monotonic, align 4
  %others = atomicrmw add ptr %arrived, i32 1 acq_rel
  %all = trunc i64 %workers to i32
  %count = add i32 %others, 1
  %last = icmp eq i32 %count, %all
  br i1 %last, label %open, label %wait
open:
  store atomic i32 0, ptr %arrived monotonic, align 4
  %next = add i32 %phase, 1
  store atomic i32 %next, ptr %word seq_cst, align 4
  call void @tcc_wake(ptr %word, ptr %sleepers)
  br label %done
wait:
  %limit = getelementptr i8, ptr %team, i64 132
  %all.of.it = load i32, ptr %limit, align 4
  %little = lshr i32 %all.of.it, 6
  %failures = getelementptr i8, ptr %team, i64 516
  %failed = load atomic i32, ptr %failures monotonic, align 4
  %trusted = icmp ult i32 %failed, 4
  %turn = and i32 %failed, 63
  %again = icmp eq i32 %turn, 63
  %long = or i1 %trusted, %again
  %spin = select i1 %long, i32 %all.of.it, i32 %little
  %slept = call i1 @tcc_wait(ptr %word, i32 %phase, ptr %sleepers, i32 %spin)
  %more.failed = add i32 %failed, 1
  %now.failed = select i1 %slept, i32 %more.failed, i32 0
  %same = icmp eq i32 %now.failed, %failed
  br i1 %same, label %done, label %learn
learn:
  store atomic i32 %now.failed, ptr %failures monotonic, align 4
  br label %done
done:
  ret void
}

; Publishes a job: the low half of the word is the next sequence number (0 is skipped), the high half the workers.
define internal void @tcc_publish(ptr %team, i64 %workers) {
  %old = load atomic i64, ptr %team monotonic, align 8
  %sequence = trunc i64 %old to i32
  %up = add i32 %sequence, 1
  %zero = icmp eq i32 %up, 0
  %next = select i1 %zero, i32 1, i32 %up
  %low = zext i32 %next to i64
  %high = shl i64 %workers, 32
  %word = or i64 %high, %low
  store atomic i64 %word, ptr %team seq_cst, align 8
  %sleepers = getelementptr i8, ptr %team, i64 128
  call void @tcc_wake(ptr %team, ptr %sleepers)
  ret void
}

; Runs a segment on `workers` threads, the caller being worker 0; one caller at a time may ask for more than one.
define void @tcc_run(ptr %team, ptr %segment, ptr %table, i64 %workers) {
entry:
  %alone = icmp eq i64 %workers, 1
  br i1 %alone, label %work, label %share
share:
  %segment.slot = getelementptr i8, ptr %team, i64 8
  %table.slot = getelementptr i8, ptr %team, i64 16
  store ptr %segment, ptr %segment.slot, align 8
  store ptr %table, ptr %table.slot, align 8
  call void @tcc_publish(ptr %team, i64 %workers)
  br label %work
work:
  call void %segment(ptr %table, i64 0, i64 %workers, ptr %team)
  call void @tcc_barrier(ptr %team, i64 %workers)
  ret void
}

; A worker's life: wait for a job, do its share if it has one, again. A new worker has seen job 0, which never is.
define void @tcc_worker(ptr %team, i64 %worker) {
entry:
  %sleepers = getelementptr i8, ptr %team, i64 128
  %limit = getelementptr i8, ptr %team, i64 132
  %failures = getelementptr i8, ptr %team, i64 516
  %segment.slot = getelementptr i8, ptr %team, i64 8
  %table.slot = getelementptr i8, ptr %team, i64 16
  br label %idle
idle:
  %seen = phi i32 [ 0, %entry ], [ %sequence, %job ], [ %sequence, %mine ]
  %all.of.it = load i32, ptr %limit, align 4
  %failed = load atomic i32, ptr %failures monotonic, align 4
  %trusted = icmp ult i32 %failed, 4
  %little = lshr i32 %all.of.it, 6
  %spin = select i1 %trusted, i32 %all.of.it, i32 %little
  %ignored = call i1 @tcc_wait(ptr %team, i32 %seen, ptr %sleepers, i32 %spin)
  %word = load atomic i64, ptr %team acquire, align 8
  %sequence = trunc i64 %word to i32
  %workers = ashr i64 %word, 32
  %stop = icmp slt i64 %workers, 0
  br i1 %stop, label %leave, label %job
job:
  %in = icmp slt i64 %worker, %workers
  br i1 %in, label %mine, label %idle
mine:
  %segment = load ptr, ptr %segment.slot, align 8
  %table = load ptr, ptr %table.slot, align 8
  call void %segment(ptr %table, i64 %worker, i64 %workers, ptr %team)
  call void @tcc_barrier(ptr %team, i64 %workers)
  br label %idle
leave:
  ret void
}

; Sends every worker home; no job may be under way or follow.
define void @tcc_stop(ptr %team) {
  call void @tcc_publish(ptr %team, i64 -1)
  ret void
}

; One launch of `waves` waves of `each` tasks: the share of one worker of every wave. All meet between two waves.
define internal void @tcc_waves(ptr %kernel, ptr %args, i64 %each, i64 %waves, i64 %worker, i64 %workers, ptr %team) {
entry:
  %first.scaled = mul i64 %each, %worker
  %first = udiv i64 %first.scaled, %workers
  %after = add i64 %worker, 1
  %last.scaled = mul i64 %each, %after
  %last = udiv i64 %last.scaled, %workers
  %some = icmp ult i64 %first, %last
  br label %loop
loop:
  %wave = phi i64 [ 0, %entry ], [ %next, %more ]
  br i1 %some, label %work, label %done
work:
  %start = mul i64 %wave, %each
  %from = add i64 %start, %first
  %to = add i64 %start, %last
  call void %kernel(ptr %args, i64 %from, i64 %to)
  br label %done
done:
  %next = add i64 %wave, 1
  %again = icmp ult i64 %next, %waves
  br i1 %again, label %more, label %leave
more:
  call void @tcc_barrier(ptr %team, i64 %workers)
  br label %loop
leave:
  ret void
}

; A segment that times one launch. Its table: kernel, tasks, args, two i64 pairs (seconds, nanoseconds): start and end;
; waves.
define void @tcc_timed(ptr %table, i64 %worker, i64 %workers, ptr %team) {
entry:
  %kernel = load ptr, ptr %table, align 8
  %tasks.slot = getelementptr i8, ptr %table, i64 8
  %tasks = load i64, ptr %tasks.slot, align 8
  %args.slot = getelementptr i8, ptr %table, i64 16
  %args = load ptr, ptr %args.slot, align 8
  %start = getelementptr i8, ptr %table, i64 24
  %end = getelementptr i8, ptr %table, i64 40
  %waves.slot = getelementptr i8, ptr %table, i64 56
  %waves = load i64, ptr %waves.slot, align 8
  %each = udiv i64 %tasks, %waves
  %head = icmp eq i64 %worker, 0
  call void @tcc_barrier(ptr %team, i64 %workers)
  br i1 %head, label %clock, label %work
clock:
  %ignored0 = call i32 @clock_gettime(i32 1, ptr %start)
  br label %work
work:
  call void @tcc_waves(ptr %kernel, ptr %args, i64 %each, i64 %waves, i64 %worker, i64 %workers, ptr %team)
  call void @tcc_barrier(ptr %team, i64 %workers)
  br i1 %head, label %stop, label %done
stop:
  %ignored1 = call i32 @clock_gettime(i32 1, ptr %end)
  br label %done
done:
  ret void
}

; A segment that runs another one on many tables in a row, and times the whole. Its table: segment, count (1 or more),
; address of the tables' addresses, start and end as above.
define void @tcc_repeat(ptr %table, i64 %worker, i64 %workers, ptr %team) {
entry:
  %segment = load ptr, ptr %table, align 8
  %count.slot = getelementptr i8, ptr %table, i64 8
  %count = load i64, ptr %count.slot, align 8
  %tables.slot = getelementptr i8, ptr %table, i64 16
  %tables = load ptr, ptr %tables.slot, align 8
  %start = getelementptr i8, ptr %table, i64 24
  %end = getelementptr i8, ptr %table, i64 40
  %head = icmp eq i64 %worker, 0
  call void @tcc_barrier(ptr %team, i64 %workers)
  br i1 %head, label %clock, label %first
clock:
  %ignored0 = call i32 @clock_gettime(i32 1, ptr %start)
  br label %first
first:
  br label %loop
loop:
  %i = phi i64 [ 0, %first ], [ %next, %loop ]
  %slot = getelementptr ptr, ptr %tables, i64 %i
  %its = load ptr, ptr %slot, align 8
  call void %segment(ptr %its, i64 %worker, i64 %workers, ptr %team)
  call void @tcc_barrier(ptr %team, i64 %workers)
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %count
  br i1 %more, label %loop, label %over
over:
  br i1 %head, label %stop, label %done
stop:
  %ignored1 = call i32 @clock_gettime(i32 1, ptr %end)
  br label %done
done:
  ret void
}
"""


def team_functions(triple: str) -> str:
    """LLVM IR text of the team's functions for a target triple; raises InputError where tcc has no futex for it."""
    arch = triple.split("-")[0]
    if arch not in _FUTEX_CALL or "linux" not in triple:
        raise InputError(
            f"CPU engines need Linux on x86_64 or aarch64, which '{triple}' is not; choose another --target"
        )
    declaration, pause = _PAUSE[arch]
    replacements = {"PAUSE_DECLARATION": declaration, "PAUSE": pause, "ABI": str(ABI), "FUTEX": str(_FUTEX_CALL[arch])}
    text = _TEXT
    for name, value in replacements.items():
        text = text.replace(f"@{name}@", value)
    return text
