"""What a face, a track, a person and an identity are: numpy, OpenCV, SciPy and FAISS, no torch, no ROS."""
