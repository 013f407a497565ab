"""Where frames go; `registry.listeners` holds the kinds.

base          what a listener is
addresses     HOST:PORT, and who may listen beyond this machine
meter · livelink · osc · vmc · websocket · file
"""
