# FindTorchWheel: the torch that a Python sees, found without importing it and without find_package(Torch).
#
# In    TorchWheel_PYTHON        the Python to ask; default: python3, then python, on PATH
# Out   TorchWheel::cpu          headers of the stable ABI and libtorch_cpu
#       TorchWheel::cuda         the same and libtorch_cuda, where the torch has it
#       TorchWheel_VERSION, TorchWheel_INCLUDE_DIR, TorchWheel_LIB_DIR
#       TorchWheel_CUDA_VERSION  the CUDA that it was built with, "13.0"; empty where without

if(NOT TorchWheel_PYTHON)
  find_program(TorchWheel_PYTHON NAMES python3 python DOC "Python whose torch the operators are built for")
endif()

# find_spec locates the package without running it, so this takes milliseconds and needs no GPU driver.
set(_torch_wheel_query [=[
import importlib.util, pathlib, sys
spec = importlib.util.find_spec("torch")
if spec is None or spec.origin is None:
    sys.exit("no module named torch")
root = pathlib.Path(spec.origin).parent
version = {}
exec((root / "version.py").read_text(encoding="utf-8"), version)
print(version["__version__"].partition("+")[0], root / "include", root / "lib", version.get("cuda") or "", sep=";")
]=])

set(TorchWheel_VERSION "")
set(TorchWheel_INCLUDE_DIR "")
set(TorchWheel_LIB_DIR "")
set(TorchWheel_CUDA_VERSION "")
if(TorchWheel_PYTHON)
  execute_process(COMMAND ${TorchWheel_PYTHON} -c "${_torch_wheel_query}"
                  OUTPUT_VARIABLE _torch_wheel_answer ERROR_VARIABLE _torch_wheel_error
                  RESULT_VARIABLE _torch_wheel_status OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_STRIP_TRAILING_WHITESPACE)
  if(_torch_wheel_status EQUAL 0)
    list(GET _torch_wheel_answer 0 TorchWheel_VERSION)
    list(GET _torch_wheel_answer 1 TorchWheel_INCLUDE_DIR)
    list(GET _torch_wheel_answer 2 TorchWheel_LIB_DIR)
    list(GET _torch_wheel_answer 3 TorchWheel_CUDA_VERSION)
    # A pre-release ("2.12.0a0") counts as its release.
    string(REGEX MATCH "^[0-9]+\\.[0-9]+(\\.[0-9]+)?" TorchWheel_VERSION "${TorchWheel_VERSION}")
  endif()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  TorchWheel
  REQUIRED_VARS TorchWheel_LIB_DIR TorchWheel_INCLUDE_DIR
  VERSION_VAR TorchWheel_VERSION
  REASON_FAILURE_MESSAGE
    "'${TorchWheel_PYTHON}' has no torch (${_torch_wheel_error}). Install it there, or name another Python with -DTorchWheel_PYTHON=/path/to/python, or configure with -DMOVER_TORCH=OFF.")

if(TorchWheel_FOUND AND NOT TARGET TorchWheel::cpu)
  add_library(TorchWheel::cpu INTERFACE IMPORTED)
  target_include_directories(TorchWheel::cpu SYSTEM INTERFACE ${TorchWheel_INCLUDE_DIR})
  target_link_libraries(TorchWheel::cpu INTERFACE ${TorchWheel_LIB_DIR}/libtorch_cpu.so)
  target_compile_features(TorchWheel::cpu INTERFACE cxx_std_20)
endif()
if(TorchWheel_FOUND AND TorchWheel_CUDA_VERSION AND NOT TARGET TorchWheel::cuda)
  add_library(TorchWheel::cuda INTERFACE IMPORTED)
  target_link_libraries(TorchWheel::cuda INTERFACE TorchWheel::cpu ${TorchWheel_LIB_DIR}/libtorch_cuda.so)
endif()
