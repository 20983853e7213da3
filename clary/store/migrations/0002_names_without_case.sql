-- ARNs carry names in lower case: finding by them compares names without case.
CREATE INDEX resources_without_case ON resources (kind, account, region, name COLLATE NOCASE);
CREATE INDEX labels_of_resource ON labels (kind, account, region, resource);
