-- The database of `crosspoint demo`. Its mark says that the demo may write to it.
pragma application_id = 0x43505444;

begin;

create table item (
    id integer primary key,
    name text not null unique constraint "a name has 1 to 40 characters" check (length(name) between 1 and 40),
    stock integer not null constraint "stock is a number from 0 to 1000"
        check (typeof(stock) = 'integer' and stock between 0 and 1000),
    changed_by integer -- the session that did it; null is a program that writes to this file
);

insert into item (name, stock) values ('tea', 12), ('coffee', 3), ('cups', 1);

-- What a trigger refuses is told to the caller.
create trigger item_full before insert on item when (select count(*) from item) >= 12 begin
    select raise(abort, 'there is room for twelve items: delete one first');
end;

-- What it writes into the outbox, which the router makes, is published when the transaction commits.
create trigger item_sold_out after update of stock on item when new.stock = 0 and old.stock > 0 begin
    insert into wamp_outbox (topic, args, kwargs)
    values ('com.example.item.sold_out', json_array(new.id), json_object('name', new.name));
end;

commit;
