"""The ledger: every receipt becomes a row, and nobody waits for it.

Lives here: `Ledger`, `LedgerOptions`. May not live here: anything about files and tables (book).
How it works: `observe` runs in the loop, counts the receipt in the run file and appends it to a bounded deque. One
daemon thread takes turns: it writes what waits in transactions of some hundred rows, replays a piece of the spill file,
prunes a little, and rests. A receipt is always in one of three places: the tables; the spill file, when the queue was
full or the database refused; or, where the disk takes neither, in memory until the queue is full, and what comes then
is counted as lost, also in the run file. The operator is told at each change between these three, and of losses each
minute while they go on.
Doubted: a receipt that comes when the queue is full costs the loop one write to a file, 15 us.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass
from enum import Enum
from queue import Empty, SimpleQueue

from proxy.ledger import rows, run, schema
from proxy.ledger.book import BATCH, Book
from proxy.ledger.losses import Losses
from proxy.ledger.naps import Naps
from proxy.outcome import Receipt

_RETRY = 0.1  # seconds until the next try to write what was refused; with the wait for a lock it makes 0.2
_TELL = 60.0  # seconds between two notes about pruning
_LOOK = 1.0  # seconds between two looks whether something is to be pruned
_LOOK_IDLE = 60.0  # the same while nothing is written
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class LedgerOptions:
    path: str
    days: float = 0  # that exchanges are kept; 0: for ever
    max_bytes: int = 0  # that they may fill, the oldest go first; 0: any
    flush_seconds: float = 0.2  # what a kill -9 may cost; a busy process commits five times a second, not for each row
    queue: int = 10_000  # receipts that may wait: seconds of a busy process, 20 MB
    lock_seconds: float = 1.0  # that another program's lock is waited for at start; later half of flush_seconds


class _State(Enum):
    """Where receipts end."""

    TABLES = "tables"
    SPILL = "spill"
    MEMORY = "memory"


class Ledger:
    """A sink for receipts.

    `run_name`: this process's part of its receipts' ids, at most 40 bytes, never used twice.
    `note(level, message, **more)`: tells the operator; it is called in any thread.
    `open`, then `start`, at last `close`; `observe` at any time.
    """

    __slots__ = (
        "_book",
        "_note",
        "_options",
        "_path",
        "_run",
        "_version",
        # the data path
        "_capacity",
        "_counter",
        "_crowd",
        "_is_idle",
        "_losses",
        "_observed",
        "_queue",
        "_wake",
        # the thread
        "_closing",
        "_held",
        "_is_complete",
        "_look_at",
        "_naps",
        "_pruned",
        "_state",
        "_tell_at",
        "_thread",
    )

    def __init__(self, options: LedgerOptions, run_name: str, version: str, note: Callable[..., None]) -> None:
        self._options = options
        self._path = options.path
        self._run = run_name
        self._version = version
        self._note = note
        self._book: Book | None = None
        self._queue: deque[Receipt] = deque()
        self._capacity = options.queue
        self._crowd = options.queue // 2  # so many wake a thread that rests
        self._observed = 0
        self._losses = Losses(note)
        self._counter: MutableSequence[int] = [0] * 4  # until there is a run file
        self._wake: SimpleQueue[None] = SimpleQueue()  # C: a put costs 0.1 us, threading.Event.set 1 us
        self._is_idle = False  # the thread waits for `_wake`
        self._thread: threading.Thread | None = None
        self._closing = False
        self._is_complete = False  # the run has ended, and no receipt is lost
        self._held: list[rows.Entry] = []  # taken out of the queue, neither written nor spilled yet
        self._state = _State.TABLES
        self._look_at = 0.0  # time.monotonic() of the next look whether something is to be pruned
        self._naps = Naps()
        self._pruned = 0  # rows, since the operator was told
        self._tell_at = 0.0  # time.monotonic() of the next note about that

    @property
    def observed(self) -> int:
        return self._observed

    @property
    def waiting(self) -> int:
        """Receipts in memory."""
        return len(self._queue) + len(self._held)

    @property
    def spilled_bytes(self) -> int:
        """What waits in the spill file."""
        return self._book.spill.waiting if self._book else 0

    @property
    def lost(self) -> int:
        """Receipts that no disk took, and that are gone."""
        return self._losses.count

    @property
    def is_well(self) -> bool:
        """Receipts end in the tables."""
        return self._state is _State.TABLES

    # -- at start ---------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Take the file: lock it, create or migrate it, replay what was spilled, end the run before. Blocks. What keeps
        the database from being used only for now (a lock, a full disk) is told, and tried again by every turn.

        LedgerUnusable: it cannot be used, and nothing is left open.
        """
        options = self._options
        self._path = schema.real_path(options.path)
        self._book = book = Book(self._path, options.lock_seconds, self._run, self._version, self._note)
        book.wait_for_locks(min(options.lock_seconds, options.flush_seconds / 2))
        self._count_in(book)
        if book.refusal:
            self._end_in(_State.SPILL, book.refusal)

    def start(self) -> None:
        """Start the thread. What was observed before is written, too."""
        assert self._book is not None, "the ledger is not open"
        self._book.breathe = self._naps.take
        self._naps.is_on = True
        self._thread = threading.Thread(target=self._take_turns, args=(self._book,), name="ledger", daemon=True)
        self._thread.start()

    # -- in the loop ------------------------------------------------------------------------------------------------

    def observe(self, receipt: Receipt) -> None:
        """Take `receipt` for the ledger. A sink on the data path: 0.2 us, never blocks, never raises."""
        self._observed += 1
        self._counter[0] = self._observed
        waiting = len(self._queue)
        if waiting >= self._capacity:
            self._overflow(receipt)
            return
        self._queue.append(receipt)
        # The thread sets `_is_idle` and looks at the queue after it; we append and look at `_is_idle` after that. One
        # of the two always sees the other, so no receipt waits for the next one.
        if self._is_idle or waiting == self._crowd:
            self._is_idle = False
            self._wake.put(None)

    def _overflow(self, receipt: Receipt) -> None:
        if self._book is None:
            self._losses.add(1, "it is not open")
            return
        try:
            self._book.spill.append([rows.entry_of(receipt, self._run)])
            if self.is_well:
                self._end_in(_State.SPILL, "more receipts wait than its queue holds")
        except Exception as error:  # nothing may reach the data path
            self._end_in(_State.MEMORY, str(error))
            self._losses.add(1, str(error))

    # -- in the thread ----------------------------------------------------------------------------------------------

    def _take_turns(self, book: Book) -> None:
        while not self._closing:
            if not self._turn(book):
                self._rest()
        self._finish(book)

    def turn(self) -> bool:
        """What the thread does again and again: write what waits, replay a piece of the spill file, prune a little.
        For whoever has a ledger without a thread. Blocks. True: there is more to do at once."""
        assert self._book is not None, "the ledger is not open"
        return self._turn(self._book)

    def _turn(self, book: Book) -> bool:
        try:
            self._naps.begin(len(self._queue) // rows.GROUP)
            self._reach(book)
            self._empty_queue(book)
            if book.spill.waiting:
                book.replay(self._observed)
                return True
            book.settle()
            self._end_in(_State.TABLES)
            return self._prune(book)
        except Exception as error:  # locked, full, gone; and a fault of ours must not end the thread either
            self._end_in(_State.MEMORY if self._held else _State.SPILL, str(error))
            return False

    def _reach(self, book: Book) -> None:
        """Do what the start could not. Where it still cannot be done, `write` will raise."""
        try:
            book.reach()
        except Exception as error:
            if str(error) != book.refusal and not schema.is_temporary(error):
                self._note("error", str(error), path=self._path)
            book.refusal = str(error)
        self._count_in(book)

    def _count_in(self, book: Book) -> None:  # its run file, or what it has instead
        if self._counter is not book.counter:
            self._counter = book.counter
            self._losses.count_in(self._counter)
            while self._counter[run.OBSERVED] != self._observed:  # the loop may be counting, with what we just left
                self._counter[run.OBSERVED] = self._observed

    def _rest(self) -> None:
        try:
            self._wake.get(timeout=self._options.flush_seconds if self.is_well else _RETRY)
            return
        except Empty:
            pass
        if not self.is_well:
            return  # to try again
        self._is_idle = True
        if not self._queue and not self._closing:
            try:
                prunes = self._options.days or self._options.max_bytes
                self._wake.get(timeout=_LOOK_IDLE if prunes else None)
            except Empty:
                pass
        self._is_idle = False

    def _empty_queue(self, book: Book) -> None:
        """Write what waits. If the database refuses, the rest is spilled, or held if that is refused as well; then
        raises what was said."""
        refusal: Exception | None = None
        while self._fill():
            if refusal is None:
                try:
                    book.write(self._held, self._observed)
                except Exception as error:
                    refusal = error  # no second try in this turn: each may wait for a lock
                    continue
            else:
                book.spill.append(self._held)
            self._held = []
        if refusal is not None:
            raise refusal

    def _fill(self) -> bool:
        """Hold the next batch, unless the last one still is. False: nothing waits."""
        while not self._held and self._queue:
            self._take(self._held, BATCH)
        return bool(self._held)

    def _take(self, entries: list[rows.Entry], most: int) -> None:
        """Move the next receipts from the queue to `entries`."""
        while self._queue and len(entries) < most:
            if entries and len(entries) % rows.GROUP == 0:
                self._naps.take()
            try:
                entries.append(rows.entry_of(self._queue.popleft(), self._run))
            except IndexError:
                return  # `close` does not wait any longer, and took the rest
            except Exception as error:  # a fault of ours, and of one row only
                self._losses.add(1, f"no row could be made of one: {type(error).__name__}: {error}")

    def _prune(self, book: Book) -> bool:
        """Prune a little, if it is time. True: there is more."""
        days, max_bytes = self._options.days, self._options.max_bytes
        if not (days or max_bytes) or time.monotonic() < self._look_at:
            return False
        removed, is_more = book.prune(time.time() - days * _DAY if days else None, max_bytes)
        self._pruned += removed
        if is_more:
            return True
        now = time.monotonic()
        self._look_at = now + _LOOK
        if self._pruned and now >= self._tell_at:
            self._note("info", f"the ledger's {self._pruned} oldest exchanges were removed", exchanges=self._pruned)
            self._pruned, self._tell_at = 0, now + _TELL
        return False

    def _end_in(self, state: _State, reason: str = "") -> None:
        """Receipts now end in `state`, for that reason. The operator is told once."""
        if state is self._state:
            return
        self._state = state
        match state:
            case _State.TABLES:
                level, message = "info", "the ledger is written again"
                if self._losses.end():
                    level, message = "warn", f"{message}; {self.lost} receipts are lost"
            case _State.SPILL:
                level, message = "warn", f"the ledger cannot be written ({reason}): receipts go to {self._path}-spill"
            case _State.MEMORY:
                level = "error"
                message = f"neither the ledger nor its spill file can be written ({reason}): receipts wait in memory"
        self._note(level, message, path=self._path, waiting=self.waiting, lost=self.lost)

    # -- at the end -------------------------------------------------------------------------------------------------

    def close(self, timeout: float) -> bool:
        """Write all that waits, end the run and the thread. Blocks for at most about `timeout` seconds. True: every
        receipt has its row, or is spilled for the next start; False: the operator was told how many are lost, and why.
        """
        self._closing = True
        self._naps.is_on = False
        book = self._book
        if book is None:
            return self._is_complete
        if self._thread is None:
            self._finish(book)
        else:
            self._wake.put(None)
            self._thread.join(timeout)
            if self._thread.is_alive():
                self._leave(book)
        return self._is_complete

    def _finish(self, book: Book) -> None:
        """The last turn. A run that cannot be ended here is ended by the next one."""
        self._capacity = 0  # what comes from now on is lost
        try:
            self._reach(book)
            self._empty_queue(book)
            while book.spill.waiting:
                book.replay(self._observed)
            book.settle()
            self._conclude(book, book.end(self._observed))
        except Exception as error:
            self._give_up(book, self.waiting, str(error))
        self._book = None
        self._counter = [0] * 4  # the run file is unmapped, and no longer locked, when nobody has its counter
        self._losses.count_in(self._counter)
        del book.counter
        try:
            book.close()
        except Exception as error:  # no row is lost by it; the next start finds the same files
            self._note("warn", f"the ledger was not closed well: {error}", path=self._path)

    def _leave(self, book: Book) -> None:
        """The thread hangs in the database. Spill what waits and what it holds; rows that it makes of that after all
        are left alone by whoever replays it."""
        self._capacity = 0
        entries = list(self._held)
        self._take(entries, len(entries) + len(self._queue))
        try:
            book.spill.append(entries)
            self._give_up(book, 0, "the database does not answer")
        except Exception as error:
            self._give_up(book, len(entries), str(error))

    def _give_up(self, book: Book, missing: int, why: str) -> None:
        """The end of one whose database takes nothing: `missing` receipts are in no file."""
        if book.spill.waiting:
            self._note("warn", f"the ledger was not written to the end ({why}): {self._path}-spill has the rest")
        if missing:
            self._losses.add(missing, why, is_told=True)
        self._conclude(book, self.lost)

    def _conclude(self, book: Book, lost: int) -> None:
        """The last word about this run: here and in the run file."""
        self._is_complete = lost == 0
        if lost:
            why = self._losses.why or "nobody knows why"
            self._note("error", f"{lost} receipts have no row in {self._path} and are lost ({why})", lost=lost)
        try:
            book.leave()
        except Exception as error:
            self._note("warn", f"{self._path}-run cannot be written: {error}", path=self._path)
