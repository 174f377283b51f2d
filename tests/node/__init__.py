"""A whole node: controller manager, scheduler, kubelet, containerd, and the image as it is shipped.

NetworkPolicies hold on it, so that everything here runs under the one that is shipped.

Runs in network, mount and process namespaces of its own (`make test-node`): nothing outside can be
reached, nothing outlives it.
"""
