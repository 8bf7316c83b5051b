"""A switch in the graph of a session that ends one of its runs.

TensorFlow's sessions end a run at its timeout, but not at a call. They do end
it when one of its ops fails. So each run has a queue of its own, from which an
op of the switch dequeues while the model works: with the last output it gets
the last of its elements and the run is done; when the queue is closed instead
it fails, and the runtime ends the model's loops and functions as it does at a
timeout.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from .cancel_token import CancelToken
from .run_options import run_options

# Of the feeds, which messages number in the order of their names, these are
# the last.
_SCOPE = "zz_abort_switch"
_QUEUES_AT_A_TIME = 16
_STARTERS = 2
_REST_SECONDS = 10.0


class AbortSwitch:
    """Ops beside a model, by which a run of it can be ended from outside.

    They are added between the import of the graph and its first run. Runs may
    overlap: each borrows a queue, named by a string that is fed, so that the
    runtime's executor of a set of feeds and fetches serves them all.

    Args:
        session: tf.compat.v1.Session.
        inputs: names of the tensors that runs feed. What reads them waits
            until the run can be ended: else a loop could keep the threads
            busy that would make it so.
        outputs: names of the tensors that runs fetch; others may be fetched,
            too, but each adds to the graph then.
    """

    def __init__(
        self,
        session: tf.compat.v1.Session,
        inputs: Iterable[str],
        outputs: Iterable[str],
    ) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._free: list[_Queue] = []
        self._closed: deque[tuple[float, _Queue]] = deque()
        self._num_queues = 0
        self._releases: dict[str, Any] = {}
        with self._building():
            self._name = tf.compat.v1.placeholder(tf.string, [], name="queue")
            self._count = tf.compat.v1.placeholder(tf.int32, [], name="count")
            self._handle = tf.raw_ops.ParseTensor(
                serialized=self._name, out_type=tf.resource
            )
            self._add_ops()
            self._add_releases(outputs)
        self._make_wait(inputs)

    def prepare(self) -> None:
        """Does once what takes its time, so that no call waits for it."""
        queue = self._borrow([])
        self._call(queue, self._drain)
        self._end_run_of(queue)
        self._call(queue, self._destroy)
        self._run_in_this_thread({}, queue.siblings, [])
        self._give_back(queue, closed=False)

    @contextmanager
    def run(
        self, fetches: Sequence[str], cancel: CancelToken | None = None
    ) -> Iterator[tuple[dict[Any, np.ndarray], list[Any]]]:
        """Lends a run its queue.

        Args:
            fetches: names of the tensors that the run fetches.
            cancel: CancelToken that ends it.

        Yields:
            tuple of the feeds and the targets that the block adds to its run.
            If that fails, the block must raise.
        """
        if not fetches:
            # The runtime refuses such a run, and is to go on doing so.
            yield {}, []
            return
        names = dict.fromkeys(fetches)
        queue = self._borrow(names)
        count = np.array(len(names) + _STARTERS, np.int32)
        feeds = {
            self._name._as_tf_output(): queue.name,
            self._count._as_tf_output(): count,
        }
        targets = [self._wait, self._started._c_op]
        targets += [self._releases[name] for name in names]
        token = cancel or CancelToken()
        try:
            with token.watch(lambda: self._end_run_of(queue)):
                yield feeds, targets
        except BaseException:
            self._clear(queue)
            raise
        finally:
            self._give_back(queue, closed=token.cancelled)

    # === Queues ===

    def _borrow(self, names: Iterable[str]) -> "_Queue":
        with self._lock:
            missing = [name for name in names if name not in self._releases]
            if missing:
                with self._building():
                    self._add_releases(missing)
            self._renew_closed()
            if not self._free:
                self._add_queues()
            elif missing:
                self._session._extend_graph()
            return self._free.pop()

    def _give_back(self, queue: "_Queue", *, closed: bool) -> None:
        with self._lock:
            if closed:
                self._closed.append((time.monotonic(), queue))
            else:
                self._free.append(queue)

    def _add_queues(self) -> None:
        names = []
        with self._building():
            for _ in range(_QUEUES_AT_A_TIME):
                handle = tf.raw_ops.FIFOQueueV2(
                    component_types=[tf.bool],
                    shapes=[[]],
                    capacity=1,
                    shared_name=f"{_SCOPE}/{self._num_queues}",
                )
                self._num_queues += 1
                name = tf.raw_ops.SerializeTensor(tensor=handle)
                names.append(name._as_tf_output())
        self._session._extend_graph()
        for name in self._run_in_this_thread({}, names, []):
            self._free.append(_Queue(np.array(name, object), names))

    def _end_run_of(self, queue: "_Queue") -> None:
        # The queue may be closed already, or gone with the session.
        with suppress(tf.errors.OpError):
            self._call(queue, self._close)

    def _clear(self, queue: "_Queue") -> None:
        # What a run that failed has left in it. It may be gone with the
        # session.
        with suppress(tf.errors.OpError):
            self._call(queue, self._drain)

    def _renew_closed(self) -> None:
        # Not at once: the thread in which a run fails may still be about to
        # touch its queue when the run has returned.
        now = time.monotonic()
        while self._closed and now - self._closed[0][0] > _REST_SECONDS:
            _, queue = self._closed.popleft()
            self._call(queue, self._destroy)
            self._run_in_this_thread({}, queue.siblings, [])
            self._free.append(queue)

    def _call(self, queue: "_Queue", operation: Any) -> None:
        feeds = {self._name._as_tf_output(): queue.name}
        self._run_in_this_thread(feeds, [], [operation])

    def _run_in_this_thread(
        self, feeds: dict[Any, np.ndarray], fetches: list[Any], ops: list[Any]
    ) -> Any:
        # The runtime's own threads may all be busy with what is to be ended.
        with run_options(inter_op_thread_pool=-1) as options:
            return self._session._call_tf_sessionrun(
                options, feeds, fetches, ops, None
            )

    # === Ops ===

    @contextmanager
    def _building(self) -> Iterator[None]:
        with (
            self._session.graph.as_default(),
            tf.device(None),
            tf.control_dependencies(None),
            tf.name_scope(_SCOPE),
        ):
            yield

    def _add_ops(self) -> None:
        # It waits for the starters and for an element from each output.
        elements = tf.raw_ops.QueueDequeueManyV2(
            handle=self._handle, n=self._count, component_types=[tf.bool]
        )
        self._wait = elements[0].op._c_op
        # In a queue with room for one, the second goes in only once the first
        # is out: then the op above has begun to wait.
        self._started = tf.raw_ops.QueueEnqueueManyV2(
            handle=self._handle, components=[tf.fill([_STARTERS], True)]
        )
        self._close = tf.raw_ops.QueueCloseV2(
            handle=self._handle, cancel_pending_enqueues=True
        )._c_op
        left = tf.raw_ops.QueueDequeueManyV2(
            handle=self._handle,
            n=tf.raw_ops.QueueSizeV2(handle=self._handle),
            component_types=[tf.bool],
        )
        self._drain = left[0].op._c_op
        self._destroy = tf.raw_ops.DestroyResourceOp(
            resource=self._handle
        )._c_op

    def _add_releases(self, tensor_names: Iterable[str]) -> None:
        for name in tensor_names:
            tensor = self._find(name)
            if tensor is None or name in self._releases:
                continue
            # By way of an Identity, too, as the tensor may be fed; the runtime
            # inlines a stateful function only where something waits for its
            # call. A trigger goes on when that is in a branch not taken.
            waited_for = [tf.identity(tensor), tensor.op]
            with tf.control_dependencies(waited_for):
                done = tf.raw_ops.ControlTrigger()
            with tf.control_dependencies([done]):
                release = tf.raw_ops.QueueEnqueueV2(
                    handle=self._handle, components=[True]
                )
            self._releases[name] = release._c_op

    def _make_wait(self, inputs: Iterable[str]) -> None:
        tensors = [self._find(name) for name in inputs]
        readers = {
            reader
            for tensor in tensors
            # Other ops may have readers that run without the model, too.
            if tensor is not None and tensor.op.type == "Placeholder"
            for reader in tensor.consumers()
        }
        for reader in readers:
            reader._add_control_input(self._started)

    def _find(self, tensor_name: str) -> tf.Tensor | None:
        # A signature may name tensors that are not there, or ops.
        try:
            return self._session.graph.get_tensor_by_name(tensor_name)
        except (KeyError, ValueError):
            return None


@dataclass(frozen=True)
class _Queue:
    name: np.ndarray
    # What makes it, and others with it, if it is not there.
    siblings: list[Any]
