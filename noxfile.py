"""What developers do, as verbs: `nox` runs the quick checks, `nox -s NAME` one of them, `nox -l` lists them all.

Every verb runs in the environment that nox is in: `pip install -e ".[dev]"`. `.ci/run` makes an environment of its own.
"""

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "contracts", "test"]
nox.options.stop_on_first_error = True


@nox.session
def lint(session: nox.Session) -> None:
    """Check style; `nox -s lint -- --fix` mends what can be mended."""
    session.run("ruff", "check", *session.posargs, ".")
    session.run("ruff", "format", *([] if "--fix" in session.posargs else ["--check"]), ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types."""
    session.run("mypy", *session.posargs)


@nox.session
def contracts(session: nox.Session) -> None:
    """Check which room may know which."""
    session.run("lint-imports")


@nox.session
def test(session: nox.Session) -> None:
    """Run the tests; arguments go to pytest, as in `nox -s test -- tests/unit -k frame`."""
    session.run("pytest", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """Run the long tests: kills, clusters, deadlines."""
    session.run("pytest", "-m", "slow", *session.posargs)


@nox.session
def other_cpu(session: nox.Session) -> None:
    """Run the tests as a CPU with AVX2 alone."""
    env = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    session.run("pytest", "-o", "timeout_method=thread", *session.posargs, env=env)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation, strictly; `nox -s docs -- serve` shows it while you write."""
    command = session.posargs or ["build", "--strict", "--site-dir", "build/site"]
    session.run("mkdocs", *command, env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def bench(session: nox.Session) -> None:
    """Run one benchmark, as in `nox -s bench -- step`."""
    if not session.posargs:
        session.error("Name a benchmark of benchmarks/, as in `nox -s bench -- step`.")
    name, *arguments = session.posargs
    session.run("python", f"benchmarks/{name}.py", "--json", *arguments)


@nox.session
def ci(session: nox.Session) -> None:
    """Run every check on a clean copy in a fresh environment, as CI does."""
    session.run("bash", ".ci/run", external=True)
