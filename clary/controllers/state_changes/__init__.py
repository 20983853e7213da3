"""What counts as a change of state, a file for each kind of resource, found by its being here.

A module has ``KIND``, the kind in the store; ``DETAIL_TYPE``, what EventBridge calls its events;
``DESCRIBE``, the SageMaker operation whose output an event's detail is; and
``changes(resource, mark) -> (changes, mark)``: what is to be told of a resource of which all up to ``mark``
was told (``None``: it is new to those who tell). A mark is any text.
"""
