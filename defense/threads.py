"""Parts of large arrays, worked on by as many threads as torch has: each at a part of its own, with one of torch's.

One product, one sum of a part is too small to be shared out; and numpy shares none out.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Part = TypeVar("Part")
Made = TypeVar("Made")


def each(work: Callable[[Part], Made], parts: Iterable[Part]) -> Iterator[Made]:
    """What `work` makes of every part, in their order. Its first error is raised, and what has not begun then never
    does."""
    import torch  # seconds of imports: a page of a scan is made without it

    count = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield from pool.map(work, parts)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(count)  # threads begun later take the number that any thread set last
