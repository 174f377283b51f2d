"""A complete node: controller manager, scheduler, kubelet, containerd, and the shipped image.

The node enforces NetworkPolicies: every test runs under the shipped one.

The tests run in separate network, mount and process namespaces (`make test-node`): no outside
network can be reached, and every process ends with them.
"""
