# For environments where ROS 2 comes as Python wheels (pip) and not as distribution packages.
#
# Included by CMakeLists.txt when pip builds the package. For a plain cmake or colcon build in such an
# environment pass this file as -DCMAKE_PROJECT_INCLUDE=<path>/ros_wheels.cmake. With ROS from the
# distribution it is not needed.

# No include guard: the targets to mend belong to a directory, and a guard would keep the file out of the
# directories below the first one that includes it.

# The wheels put the CMake files of ROS below the prefix of the Python environment.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
execute_process(
  COMMAND "${Python3_EXECUTABLE}" -c
    "import ament_package, pathlib; print(pathlib.Path(ament_package.__file__).resolve().parents[4].as_posix())"
  OUTPUT_VARIABLE _ros_wheels_prefix
  OUTPUT_STRIP_TRAILING_WHITESPACE
  RESULT_VARIABLE _ros_wheels_result)
if(NOT _ros_wheels_result EQUAL 0)
  message(FATAL_ERROR "ament_package cannot be imported by ${Python3_EXECUTABLE}: "
    "install requirements/ros.txt into that environment first")
endif()
list(PREPEND CMAKE_PREFIX_PATH "${_ros_wheels_prefix}")
if(NOT "$ENV{AMENT_PREFIX_PATH}" MATCHES "(^|:)${_ros_wheels_prefix}(:|$)")
  if("$ENV{AMENT_PREFIX_PATH}" STREQUAL "")
    set(ENV{AMENT_PREFIX_PATH} "${_ros_wheels_prefix}")
  else()
    set(ENV{AMENT_PREFIX_PATH} "${_ros_wheels_prefix}:$ENV{AMENT_PREFIX_PATH}")
  endif()
endif()

# Deferred to the end of the directory, when all its targets are known.
function(_ros_wheels_adjust_targets)
  # Every message wheel carries an include directory of the machine it was built on in its Python generator
  # target, and CMake refuses targets with include directories that do not exist. The target needs none.
  get_property(_targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(_target IN LISTS _targets)
    if(_target MATCHES "__rosidl_generator_py$")
      set_property(TARGET "${_target}" PROPERTY INTERFACE_INCLUDE_DIRECTORIES "")
    endif()
  endforeach()

  # One compiler run a library instead of one a message saves much time. (Not for __rosidl_generator_c:
  # its files define the same static names.)
  get_property(_targets DIRECTORY PROPERTY BUILDSYSTEM_TARGETS)
  foreach(_target IN LISTS _targets)
    if(_target MATCHES "__rosidl_(typesupport_(fastrtps_c|fastrtps_cpp|introspection_cpp|cpp)|generator_py)$")
      set_target_properties("${_target}" PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 0)
    endif()
  endforeach()
endfunction()
cmake_language(DEFER CALL _ros_wheels_adjust_targets)
