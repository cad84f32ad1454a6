"""Can be imported where the interface package is built for this Python, and nowhere else.

``pytest.importorskip`` of the package itself skips nothing: its source folder is on pytest's path and passes
for an empty package, and one that is built for another Python has classes whose messages cannot be sent.
"""

try:
    from rclpy.type_support import check_for_type_support

    from face_recognition_interfaces.msg import Face

    check_for_type_support(Face)
except Exception as error:  # rosidl's own has moved between distributions
    reason = "the interface package is not built for this Python; ./run setup, or colcon build"
    raise ModuleNotFoundError(f"{reason} ({error})") from error
