"""What a job tries in order to get out, and that it does not."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from emulated import BUCKET, IMAGES, log_lines, trained, training_request
from escaping import follow_links, python, write_secret
from rehearsal.emulator.records import records
from rehearsal.emulator.server import Running, emulator
from rehearsal.jobs import job_files, sandbox

pytestmark = pytest.mark.slow  # they start processes

LOGS = "/aws/sagemaker/TrainingJobs"
CHECKPOINTS = {"S3Uri": f"s3://{BUCKET}/checkpoints"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("emulator")
    if not sandbox.walls():
        pytest.skip("namespaces are not allowed on this machine")
    options: dict[str, Any] = {"checkpoint_seconds": 0.1, "stop_grace_seconds": 2}
    with emulator(folder / "aws", images=IMAGES, **options) as running:
        running.client("s3").create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    return write_secret(tmp_path / "secret")


def told(running: Running, name: str) -> dict[str, Any]:
    """What a job printed last, as JSON."""
    lines = log_lines(running.client("logs"), LOGS, prefix=f"{name}/")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


PRIVILEGES = """
import ctypes, json, os, subprocess as s
lines = open('/proc/self/status').read().splitlines()
status = dict(l.split(':\\t', 1) for l in lines if ':\\t' in l)
libc = ctypes.CDLL(None, use_errno=True)
def can(*c):
    return s.run(c, capture_output=True).returncode == 0
def write(p):
    try:
        open(p, 'w').write('1')
        return True
    except OSError:
        return False
def read(p):
    try:
        return bool(open(p, 'rb').read(1))
    except OSError:
        return False
print(json.dumps({
 'caps': [status[k] for k in ('CapInh','CapPrm','CapEff','CapBnd','CapAmb')],
 'nnp': status['NoNewPrivs'].strip(), 'seccomp': status['Seccomp'].strip(),
 'did': [n for n, ok in {
   'unshare': can('unshare', '-Ur', 'true'),
   'mount': can('mount', '-t', 'tmpfs', 'none', '/tmp'),
   'remount usr': can('mount', '-o', 'remount,bind,rw', '/usr'),
   'umount': can('umount', '/proc'),
   'nsenter': can('nsenter', '-t', '1', '-m', 'true'),
   'chroot': can('chroot', '/', 'true'),
   'mknod': can('mknod', '/tmp/d', 'b', '8', '0'),
   'hostname': can('hostname', 'other'),
   'su': can('setpriv', '--reuid', '1', 'true'),
   'clone3': libc.syscall(435, None, 0) != -1,
   'keyctl': libc.syscall(250, 0, -3, 1) != -1,
   'core': write('/proc/sys/kernel/core_pattern'),
   'userns': write('/proc/sys/user/max_user_namespaces'),
   'sysrq': write('/proc/sysrq-trigger'),
   'kcore': read('/proc/kcore'), 'keys': read('/proc/keys'),
   'environ': read('/proc/1/environ'), 'mem': read('/proc/1/mem'),
   'usr': write('/usr/x'), 'image': write(os.path.join(os.path.dirname(os.__file__), 'x')),
   'resolv': write('/etc/resolv.conf'),
   'disk': any(n.startswith(('sd', 'vd', 'nvme', 'mem', 'kmsg')) for n in os.listdir('/dev')),
   'docker': os.path.exists('/run/docker.sock') or os.path.exists('/var/run'),
 }.items() if ok],
 'pids': sorted(int(p) for p in os.listdir('/proc') if p.isdigit())[:1],
 'processes': sum(p.isdigit() for p in os.listdir('/proc'))}))
"""


def test_no_privilege_is_left_inside_and_nothing_of_the_machine_can_be_changed(
    running: Running,
) -> None:
    job = trained(running.client("sagemaker"), python("privileges", PRIVILEGES))
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    found = told(running, "privileges")
    assert found["caps"] == ["0000000000000000"] * 5
    assert found["nnp"] == "1"
    assert found["seccomp"] == "2"
    assert found["did"] == []
    assert found["pids"] == [1]
    assert found["processes"] == 2  # the first process, and the program


NETWORK = """
import json, os, socket, urllib.request as r
def reach(host, port):
    try:
        socket.create_connection((host, port), 2).close()
        return True
    except OSError:
        return False
url = os.environ['AWS_ENDPOINT_URL']
port = int(url.rpartition(':')[2])
try:
    aws = r.urlopen(url + '/_rehearsal/health', timeout=5).read().decode()
except OSError as e:
    aws = 'no'
abstract = socket.socket(socket.AF_UNIX)
print(json.dumps({'aws': aws, 'door': reach('127.0.0.1', port),
 'reached': [str(p) for p in PLACES if reach(*p)],
 'abstract': abstract.connect_ex('\\0rehearsal-test') == 0,
 'devices': sorted(os.listdir('/sys/class/net')) if os.path.exists('/sys/class/net') else [],
 'interfaces': [n for _, n in socket.if_nameindex()]}))
"""


@pytest.mark.parametrize("isolated", [False, True])
def test_a_job_reaches_the_stand_in_alone_and_nobody_where_it_is_isolated(
    running: Running, isolated: bool
) -> None:
    name = f"network-{isolated}".lower()
    with (
        socket.create_server(("127.0.0.1", 0)) as service,
        socket.create_server(("0.0.0.0", 0)) as everywhere,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        abstract.bind("\0rehearsal-test")
        abstract.listen()
        places = [
            service.getsockname(),
            (_own_address(), everywhere.getsockname()[1]),
            ("169.254.169.254", 80),
            ("8.8.8.8", 53),
        ]
        code = f"PLACES = {places!r}\n{NETWORK}"
        request = python(name, code, EnableNetworkIsolation=isolated)
        job = trained(running.client("sagemaker"), request)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    found = told(running, name)
    assert found["aws"] == ("no" if isolated else "ok")
    assert found["door"] is not isolated
    assert found["reached"] == []
    assert found["abstract"] is False
    assert found["interfaces"] == ["lo"]
    assert found["devices"] == []


def _own_address() -> str:
    """Of this machine beside its loopback, where it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def test_the_hosts_of_one_job_find_each_other_and_no_other_jobs(running: Running) -> None:
    script = (
        "import json, socket, time\n"
        "me = json.load(open('/opt/ml/input/config/resourceconfig.json'))['current_host']\n"
        "if me == 'algo-1':\n"
        "    s = socket.create_server((me, 4444)); s.settimeout(20)\n"
        "    print(s.accept()[0].recv(9).decode())\n"
        "else:\n"
        "    for _ in range(200):\n"
        "        try:\n"
        "            c = socket.create_connection(('algo-1', 4444)); break\n"
        "        except OSError: time.sleep(0.05)\n"
        "    c.sendall(b'hello')\n"
    )
    request = python("hosts", script, EnableNetworkIsolation=True)
    request["ResourceConfig"]["InstanceCount"] = 2
    job = trained(running.client("sagemaker"), request)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert "hello" in log_lines(running.client("logs"), LOGS, prefix="hosts/algo-1")


def test_no_link_of_a_job_is_followed(running: Running, secret: Path) -> None:
    follow_links(running, secret=secret)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ("mkfifo output/failure", "AlgorithmError: , exit code: 1"),
        ("mkdir output/failure", "AlgorithmError: , exit code: 1"),
        ("ln -s /dev/zero output/failure", "AlgorithmError: , exit code: 1"),
        ("truncate -s 20G output/failure", None),
    ],
)
def test_what_is_no_text_of_a_failure_neither_hangs_nor_fills_anything(
    running: Running, made: str, reason: str | None
) -> None:
    name = "failure-" + made.split()[0]
    job = trained(
        running.client("sagemaker"),
        training_request(name, script=f"cd /opt/ml; {made}; exit 1"),
    )
    assert job["TrainingJobStatus"] == "Failed"
    assert "the rehearsal failed" not in job["FailureReason"]
    assert reason in (None, job["FailureReason"])


def test_odd_names_and_kinds_of_checkpoints_do_not_fail_the_job(
    running: Running,
) -> None:
    script = (
        "cd /opt/ml/checkpoints; touch good 'a\nb' \"$(printf 'x\\001y')\" "
        "\"$(printf 'n\\377')\"; mkfifo pipe; ln -s /etc/passwd link; sleep 0.5"
    )
    request = training_request("odd", script=script, CheckpointConfig=CHECKPOINTS)
    job = trained(running.client("sagemaker"), request)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    found = running.client("s3").list_objects_v2(Bucket=BUCKET, Prefix="checkpoints/good")
    assert found["KeyCount"] == 1


@pytest.mark.parametrize("place", ["/opt/ml/../../../../etc", "/opt/ml/input/../../x", "/tmp/x"])
def test_checkpoints_lie_nowhere_else(running: Running, place: str) -> None:
    config = {**CHECKPOINTS, "LocalPath": place}
    with pytest.raises(ClientError, match="NotExecutedInRehearsal"):
        running.client("sagemaker").create_training_job(
            **training_request("outside", CheckpointConfig=config)
        )


def test_a_link_put_there_while_we_look_is_not_followed(secret: Path, tmp_path: Path) -> None:
    """A folder that becomes a link, and back, all the time."""
    ml, hidden = tmp_path / "ml", tmp_path / "ml" / "hidden"
    (ml / "model").mkdir(parents=True)
    (ml / "model" / "data").write_text("the job's")
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            os.rename(ml / "model", hidden)
            os.symlink(secret, ml / "model")
            os.unlink(ml / "model")
            os.rename(hidden, ml / "model")

    swapping = threading.Thread(target=swap)
    swapping.start()
    texts = {job_files.read_text(ml, "model/data", characters=50) for _ in range(3000)}
    paths = {entry.path for _ in range(300) for entry in job_files.entries(ml, "model")}
    ended.set()
    swapping.join()
    assert texts <= {"", "the job's"}
    assert paths <= {"data"}


def test_an_environment_that_is_a_link_is_shown_by_all_its_names(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    (real / "bin").mkdir(parents=True)
    (real / "bin" / "train").write_text(f"#!{link}/bin/python\n")
    link.symlink_to(real)
    for image in (real, link):
        assert {real, link} <= set(sandbox.environments(image))


def test_the_report_says_which_walls_stand(running: Running) -> None:
    found = records(running.state)
    assert any("loopback" in text or "stand-in" in text for text in found.walls)
    assert len(found.walls) + len(found.walls_missing) == len(sandbox.WALLS)
