"""A store on a PostgreSQL server, if ASE_KINOSON_TEST_POSTGRESQL holds the URL of a database to use."""

import os
import time
import uuid

import ase.db
import numpy as np
import pytest
from ase.calculators.emt import EMT

from ase_kinoson.barriers.campaign import compute_barriers
from ase_kinoson.barriers.saddle import SaddleSettings
from ase_kinoson.errors import StoreError
from tests.barriers.bad_luck import ASKED, CHEAP, N_ROWS, same, small_study, start

SERVER = os.environ.get("ASE_KINOSON_TEST_POSTGRESQL")
pytestmark = pytest.mark.skipif(not SERVER, reason="ASE_KINOSON_TEST_POSTGRESQL gives no server")


@pytest.fixture
def url():
    """An empty schema of its own."""
    psycopg2 = pytest.importorskip("psycopg2")
    pytest.importorskip("ase_db_backends")
    name = f"test_{uuid.uuid4().hex[:12]}"

    def run(statement):
        connection = psycopg2.connect(SERVER)
        connection.autocommit = True
        connection.cursor().execute(statement)
        connection.close()

    run(f"CREATE SCHEMA {name}")
    yield f"{SERVER}{'&' if '?' in SERVER else '?'}options=-csearch_path%3D{name}"
    run(f"DROP SCHEMA {name} CASCADE")


def rows(url):
    with ase.db.connect(url) as db:
        return [(row.kind, row.state_key, row.get("jump_index")) for row in db.select()]


@pytest.fixture(scope="module")
def study():
    return small_study(3)


@pytest.fixture(scope="module")
def plain(study):
    return compute_barriers(*study, EMT, jumps=ASKED, settings=CHEAP)


def test_store_on_a_server(study, plain, url):
    compute_barriers(*study, EMT, store=url, jumps={0: [0, 3]}, settings=CHEAP)
    found = compute_barriers(*study, EMT, store=url, jumps=ASKED, settings=CHEAP)
    same(found, plain)
    assert found.settings["cost"]["computed_now"] == N_ROWS - 3
    again = compute_barriers(*study, EMT, store=url, jumps=ASKED, settings=CHEAP)
    same(again, plain)
    assert again.settings["cost"]["computed_now"] == 0 and len(rows(url)) == N_ROWS
    with ase.db.connect(url) as db:
        stored = sorted(row.barrier for row in db.select(kind="jump", status="ok"))
    assert np.array_equal(stored, sorted(plain.barrier[plain.valid]))
    with pytest.raises(StoreError, match="another study"):
        compute_barriers(*study, EMT, store=url, jumps=ASKED, settings=SaddleSettings(fmax_saddle=0.05))


def test_two_processes_one_of_which_is_killed(study, plain, url):
    both = [start(url), start(url)]
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if len(rows(url)) > 3:
                break
        except Exception:  # the tables are being made
            pass
        time.sleep(0.02)
    both[0].kill()
    told = [process.communicate(timeout=120) for process in both]
    assert both[1].returncode == 0, told
    kept = rows(url)
    assert len(kept) == len(set(kept)) == N_ROWS
    same(compute_barriers(*study, EMT, store=url, jumps=ASKED, settings=CHEAP), plain)
    with ase.db.connect(url) as db:  # every row has its own keys, although all writers share one counter of rows
        for row in db.select():
            found = [other.id for other in db.select(unique_id=row.unique_id)]
            assert found == [row.id]
        counted = db.connection.cursor()
        counted.execute("SELECT COUNT(*) FROM keys GROUP BY id, key")
        assert {n for (n,) in counted.fetchall()} == {1}
