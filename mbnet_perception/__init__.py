"""Object detection for small robot cars: a ROS 2 node, its models, and how they are trained."""
