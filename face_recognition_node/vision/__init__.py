"""A picture to faces: find, align, judge and embed them. numpy and OpenCV, no torch, no ROS."""
