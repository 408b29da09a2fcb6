"""What is installed, and what the library exports."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERSION = (ROOT / "VERSION").read_text().strip()
MINOR = ".".join(VERSION.split(".")[:2])
PKG_CONFIG = Path("lib") / "pkgconfig"
HEADER = (ROOT / "kernels" / "include" / "mover" / "mover.h").read_text()
INTERFACE = set(re.findall(r"^MOVER_API [^(]*?(\w+)\(", HEADER, re.MULTILINE))
LIBRARIES = {
    "static": {"lib/libmover.a"},
    "shared": {f"lib/libmover.so{end}" for end in ("", f".{MINOR}", f".{VERSION}")},
}


def exports(run, library) -> set[str]:
    return {line.split()[-1] for line in run("nm", "-D", "--defined-only", library).splitlines()}


def test_the_interface_was_read():
    assert {"mover_version", "mover_cost_forward", "mover_volume_scores_backward"} <= INTERFACE
    assert len(INTERFACE) == HEADER.count("\nMOVER_API ")


def test_installed_files(prefix, kind):
    files = {str(path.relative_to(prefix)) for path in prefix.rglob("*") if not path.is_dir()}
    package = {f"lib/cmake/mover/mover{end}.cmake" for end in ("Config", "ConfigVersion", "Targets", "Targets-release")}
    assert files == {"include/mover/mover.h", "lib/pkgconfig/mover.pc"} | package | LIBRARIES[kind]


def test_no_installed_text_names_a_folder_of_the_build(prefix):
    texts = [path for path in prefix.rglob("*") if path.suffix in (".h", ".pc", ".cmake")]
    assert len(texts) == 6
    for path in texts:
        assert str(ROOT) not in path.read_text(), path
        assert str(prefix.parents[1]) not in path.read_text(), path


def test_the_shared_library_exports_the_header_and_nothing_else(run, prefixes):
    assert exports(run, prefixes["shared"] / "lib" / "libmover.so") == INTERFACE


def test_the_shared_library_is_named_by_its_minor_version_and_needs_only_libc_and_libm(run, prefixes):
    dynamic = run("readelf", "-d", prefixes["shared"] / "lib" / "libmover.so")
    assert f"soname: [libmover.so.{MINOR}]" in dynamic
    assert "PATH" not in dynamic
    needed = {name.split(".so")[0] for name in re.findall(r"Shared library: \[(.*)\]", dynamic)}
    assert {name for name in needed if not name.startswith("ld-")} <= {"libc", "libm"}


def test_the_static_library_goes_whole_into_a_shared_object(run, prefixes, tmp_path):
    """No symbol twice, none missing, position-independent; and the outer object can keep the symbols to itself."""
    archive = prefixes["static"] / "lib" / "libmover.a"
    whole = ["-Wl,--whole-archive", archive, "-Wl,--no-whole-archive", "-Wl,-z,defs", "-lm"]
    run("cc", "-shared", "-o", tmp_path / "open.so", *whole)
    assert exports(run, tmp_path / "open.so") == INTERFACE
    run("cc", "-shared", "-o", tmp_path / "closed.so", *whole, "-Wl,--exclude-libs,libmover.a")
    assert exports(run, tmp_path / "closed.so") == set()


@pytest.mark.parametrize(("compiler", "standard", "suffix"), [("cc", "c11", "c"), ("c++", "c++11", "cpp")])
def test_the_header_stands_alone(run, prefixes, tmp_path, compiler, standard, suffix):
    source = tmp_path / f"only.{suffix}"
    source.write_text("#include <mover/mover.h>\nmover_transport_desc desc;\nmover_exec exec;\n")
    strict = ["-pedantic-errors", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    run(compiler, f"-std={standard}", *strict, "-I", prefixes["static"] / "include", source)


def test_the_first_call_of_the_manual_works(run, prefixes, tmp_path):
    comment = re.search(r"A FIRST CALL\n(.*?)LINKING", HEADER, re.DOTALL).group(1)
    code = re.findall(r"^ \*     (.*)$", comment, re.MULTILINE)
    program = """
        #include <mover/mover.h>
        #include <stdio.h>
        #include <stdlib.h>
        static float x[64 * 512], y[48 * 512], plan[64 * 48], cost[64 * 48], f[64], g[48], error;
        int main(void) {
            int32_t n_iter = 0;
            for (int i = 0; i < 64; i++) x[i * 512 + i] = 1;
            for (int j = 0; j < 48; j++) y[j * 512 + j] = 1;
            %s
            printf("%%d %%d %%g %%g", (int)status, (int)n_iter, cost[0], cost[1]);
        }"""
    (tmp_path / "first.c").write_text(program % "\n".join(code))
    flags = run(
        "pkg-config", "--static", "--cflags", "--libs", "mover", PKG_CONFIG_PATH=prefixes["static"] / PKG_CONFIG
    )
    run("cc", "-std=c11", "-Wall", "-Wextra", "-Werror", tmp_path / "first.c", "-o", tmp_path / "first", *flags.split())
    status, n_iter, same, other = run(tmp_path / "first").split()
    assert (status, same, other) == ("0", "0", "2")
    assert 1 <= int(n_iter) < 100


@pytest.mark.parametrize(
    ("wanted", "compatible"),
    [(VERSION, True), (MINOR, True), ("0.0", False), (f"{MINOR}.99", False), ("0.99", False), ("1", False)],
)
def test_a_program_gets_the_minor_version_it_asks_for(run, prefixes, tmp_path, wanted, compatible):
    """As find_package does it: the version file of the package is asked."""
    parts = [*wanted.split("."), "0", "0"][:3]
    names = [
        f"-DPACKAGE_FIND_VERSION{end}={part}" for end, part in zip(("_MAJOR", "_MINOR", "_PATCH"), parts, strict=True)
    ]
    script = tmp_path / "ask.cmake"
    version_file = prefixes["static"] / "lib" / "cmake" / "mover" / "moverConfigVersion.cmake"
    script.write_text(f'include("{version_file}")\nfile(WRITE "{tmp_path}/answer" "${{PACKAGE_VERSION_COMPATIBLE}}")\n')
    run("cmake", f"-DPACKAGE_FIND_VERSION={wanted}", *names, "-P", script)
    assert ((tmp_path / "answer").read_text() == "TRUE") == compatible


def test_pkg_config_knows_it(run, prefix):
    def ask(*options: str) -> str:
        return run("pkg-config", *options, "mover", PKG_CONFIG_PATH=prefix / PKG_CONFIG).strip()

    assert ask("--modversion") == VERSION
    assert Path(ask("--variable=prefix")).resolve() == prefix.resolve()
    assert ask("--libs-only-l") == "-lmover"
    assert ask("--static", "--libs-only-l") == "-lmover -lm"
