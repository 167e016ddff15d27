-- What a role was given, and by whom: the statement that takes it back but for its
-- end, and the role that has to say it. It goes on where acl.sql ends.
SELECT 'REVOKE ' || a.privilege_type || acl.part || ' ON ' || acl.object || ' FROM ' AS statement, pg_get_userbyid(a.grantor)::text AS grantor
  FROM acl, me, aclexplode(acl.acl) a WHERE a.grantee = me.oid
