"""Templates laid out for comparison: one matrix, the rows of a person next to each other."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from face_recognition_node.gallery.columns import PROVENANCES, Columns, IntArray
from face_recognition_node.gallery.values import PRECISIONS, Template
from face_recognition_node.vision.faces import HeadPose


class TemplateBlock:
    """Templates sorted by person and template id; never changes, but for :meth:`wipe`.

    Args:
        columns: The templates, in any order; copied.
        is_column_major: Lay the embeddings out for comparison with all rows (else for picking single rows).

    Attributes:
        columns: The templates, sorted.
        person_ids: The distinct persons, sorted; a person's position is its slot.
        slots: Slot of each person.
        starts: (P + 1,) the rows of slot s are ``starts[s] : starts[s + 1]``.
        set_aside: Rows that must not be found, ascending.
    """

    def __init__(self, columns: Columns, is_column_major: bool = True) -> None:
        persons, slot_of_row = _slots(columns.person_ids)
        order = np.lexsort((columns.template_ids, slot_of_row))
        self.columns = columns.take(order, is_column_major)
        self.person_ids = persons
        self.slots = {person_id: slot for slot, person_id in enumerate(persons)}
        counts = np.bincount(slot_of_row, minlength=len(persons)) if persons else np.zeros(0, np.int64)
        self.starts: IntArray = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.set_aside: IntArray = np.flatnonzero(self.columns.codes[:, 2])
        self._by_id = np.argsort(self.columns.template_ids, kind="stable")
        # Memory that is given back may keep its content for long; faces must not stay there.
        weakref.finalize(self, self.columns.embeddings.fill, 0).atexit = False

    def __len__(self) -> int:
        return len(self.columns)

    def rows_of(self, template_ids: Sequence[int]) -> IntArray:
        """Return the rows of those of ``template_ids`` that are in this block, ascending."""
        wanted = np.unique(np.array(template_ids, np.int64))
        ids = self.columns.template_ids
        if len(ids) == 0 or len(wanted) == 0:
            return np.zeros(0, np.int64)
        at = np.minimum(np.searchsorted(ids, wanted, sorter=self._by_id), len(ids) - 1)
        rows = self._by_id[at]
        return np.sort(rows[ids[rows] == wanted])

    def template(self, row: int) -> Template:
        """Return one row as a value of its own."""
        columns = self.columns
        provenance, precision, aside = (int(code) for code in columns.codes[row])
        yaw, pitch, roll = (float(angle) for angle in columns.pose[row])
        return Template(
            template_id=int(columns.template_ids[row]),
            person_id=columns.person_ids[row],
            embedding=columns.embeddings[row].copy(),
            quality=float(columns.quality[row]),
            pose=HeadPose(yaw, pitch, roll),
            provenance=PROVENANCES[provenance],
            created=float(columns.created[row]),
            precision=PRECISIONS[precision],
            is_set_aside=bool(aside),
        )

    def slot_of_rows(self) -> IntArray:
        """Return the (n,) slot of each row."""
        return np.repeat(np.arange(len(self.person_ids)), np.diff(self.starts))

    def nothing(self) -> TemplateBlock:
        """Return an empty block of the same dimension."""
        return TemplateBlock(self.columns.take(np.zeros(0, np.int64)))

    def wipe(self, rows: IntArray) -> None:
        """Zero the embeddings of some rows in place, also for those who still hold an older snapshot."""
        self.columns.embeddings[rows] = 0.0


def _slots(person_ids: NDArray[np.object_]) -> tuple[list[str], IntArray]:
    """Return the distinct ids, sorted, and for each row the position of its id among them."""
    persons = sorted(set(person_ids.tolist()))
    position = {person_id: slot for slot, person_id in enumerate(persons)}
    return persons, np.array([position[person_id] for person_id in person_ids.tolist()], np.int64)
