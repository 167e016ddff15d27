-- Everything that a role has, whoever gave it: a text for each privilege, attribute
-- and membership, and for each thing that hangs on the role and is neither. It goes
-- on where acl.sql ends.
SELECT a.privilege_type || acl.part || ' ON ' || acl.object || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END AS held
  FROM acl, me, aclexplode(acl.acl) a WHERE a.grantee = me.oid
UNION ALL
SELECT 'something of ' || d.classid::regclass || coalesce(' in database ' || quote_ident(b.datname), '')
  FROM dependency d LEFT JOIN pg_database b ON b.oid = d.dbid
 WHERE NOT EXISTS (SELECT FROM acl WHERE d.deptype = 'a' AND acl.classid = d.classid AND acl.objid = d.objid AND acl.objsubid = d.objsubid
                                     AND d.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())))
UNION ALL
SELECT 'membership of ' || quote_ident(pg_get_userbyid(m.roleid)) FROM pg_auth_members m JOIN me ON m.member = me.oid
UNION ALL
SELECT attribute FROM me, (VALUES ('LOGIN'), ('SUPERUSER'), ('CREATEROLE'), ('CREATEDB'), ('REPLICATION'), ('BYPASSRLS')) a (attribute)
 WHERE CASE attribute WHEN 'LOGIN' THEN rolcanlogin WHEN 'SUPERUSER' THEN rolsuper WHEN 'CREATEROLE' THEN rolcreaterole
                      WHEN 'CREATEDB' THEN rolcreatedb WHEN 'REPLICATION' THEN rolreplication ELSE rolbypassrls END
UNION ALL
SELECT 'comment ' || shobj_description(me.oid, 'pg_authid') FROM me
